static inline float @name@_tanh(float x)
{
    const float e = @name@_exp(-2.0f * x);
    return (1.0f - e) / (1.0f + e);
}
