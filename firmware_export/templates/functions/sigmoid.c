static inline float @name@_sigmoid(float x)
{
    return 1.0f / (1.0f + @name@_exp(-x));
}
