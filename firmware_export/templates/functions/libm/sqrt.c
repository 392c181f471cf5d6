static inline float @name@_sqrt(float x)
{
    return sqrtf(x);
}
