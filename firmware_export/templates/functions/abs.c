static inline float @name@_abs(float number)
{
    @name@_bits x;
    x.number = number;
    x.bits &= 0x7fffffffu;
    return x.number;
}
