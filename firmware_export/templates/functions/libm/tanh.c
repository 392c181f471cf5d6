static inline float @name@_tanh(float x)
{
    return tanhf(x);
}
