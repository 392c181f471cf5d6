/* The value of half a float: its bits moved into place, then 2^112 for the other offset of the exponent. */
static inline float @name@_half(uint16_t half)
{
    @name@_bits x;
    x.bits = (uint32_t)(half & 0x7fffu) << 13 | (uint32_t)(half & 0x8000u) << 16;
    return x.number * 5.192296858534828e33f;
}
