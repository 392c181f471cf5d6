/* Keeps an exponent of 2 within -@limit@ and @most@, where its power is as good as 0 or infinite beside 1. */
static @NAME@_NOINLINE float @name@_limited(float turns)
{
    const float below = turns > @most@ ? @most@ : turns;
    return below < -@limit@ ? -@limit@ : below;
}
