/* The value of half a float: its bits moved into place, the sign as that of an integer, then 2^112 for the other offset
 * of the exponent. */
static inline float @name@_half(int16_t half)
{
    @name@_bits x;
    x.bits = ((uint32_t)(int32_t)half << 13) & 0x8fffe000u;
    return x.number * 5.192296858534828e33f;
}
