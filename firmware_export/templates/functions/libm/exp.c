static inline float @name@_exp(float x)
{
    return exp2f(@name@_limited(x * @log2_e@));
}
