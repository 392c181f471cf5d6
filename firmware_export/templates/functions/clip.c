static @NAME@_NOINLINE float @name@_clip(float x, float low, float high)
{
    const float above = x < low ? low : x;
    return above > high ? high : above;
}
