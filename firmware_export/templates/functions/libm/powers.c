/* Replaces each x by 2^(turns * x). */
static @NAME@_NOINLINE void @name@_powers(float *x, int size, float turns)
{
    for (int i = 0; i < size; i++) {
        x[i] = exp2f(@name@_limited(x[i] * turns));
    }
}
