/* Halving the exponent is right to 4 %; each of Newton's steps squares the error. */
static inline float @name@_sqrt(float x)
{
    @name@_bits root;
    if (x < @smallest_normal@) {
        root.bits = x < 0.0f ? 0x7fc00000u : 0u; /* NaN, or 0 */
        return root.number;
    }
    root.number = x;
    root.bits = (root.bits >> 1) + @sqrt_guess@;
    float y = root.number;
    for (int i = 0; i < @sqrt_steps@; i++) {
        y = 0.5f * (y + x / y);
    }
    return y;
}
