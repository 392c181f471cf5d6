/* By the bit of the sign, which costs one instruction. */
static inline float @name@_relu(float number)
{
    @name@_bits x;
    x.number = number;
    x.bits &= ~(0u - (x.bits >> 31));
    return x.number;
}
