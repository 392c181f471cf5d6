/* Replaces each x by 2^(turns * x). Adding a large number leaves the whole part of the exponent in the lowest bits, a
 * polynomial does the rest. In pairs, because a processor would wait for each sum of a single polynomial. */
static @NAME@_NOINLINE void @name@_powers(float *x, int size, float turns)
{
    for (int i = 0; i < size; i += 2) {
        @name@_bits p;
        @name@_bits q;
        float a = x[i] * turns;
        float b = x[i + 1] * turns;
        p.number = a + @rounding@;
        q.number = b + @rounding@;
        if (((p.bits - @lowest@) | (q.bits - @lowest@)) > @range@) {
            a = @name@_limited(a);
            b = @name@_limited(b);
            p.number = a + @rounding@;
            q.number = b + @rounding@;
        }
        const float r = a - (p.number - @rounding@);
        const float s = b - (q.number - @rounding@);
        p.bits <<= 23;
        q.bits <<= 23;
        x[i] = p.number + p.number * (((((@c5@ * r + @c4@) * r + @c3@) * r + @c2@) * r + @c1@) * r);
        x[i + 1] = q.number + q.number * (((((@c5@ * s + @c4@) * s + @c3@) * s + @c2@) * s + @c1@) * s);
    }
}
