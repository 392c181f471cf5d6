/* e^x = 2^turns: adding a large number leaves the whole part in the lowest bits, a polynomial does the rest. */
static inline float @name@_exp(float x)
{
    const float turns = @name@_limited(x * @log2_e@);
    @name@_bits power;
    power.number = turns + @rounding@;
    const float r = turns - (power.number - @rounding@);
    power.bits <<= 23;
    return power.number + power.number * (((((@c5@ * r + @c4@) * r + @c3@) * r + @c2@) * r + @c1@) * r);
}
