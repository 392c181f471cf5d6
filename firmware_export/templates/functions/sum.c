/* y = b + matrix x for @rows@ rows, column by column; y may be b. */
static @NAME@_NOINLINE void @name@_sum@rows@(float *y, const float *b, const @type@ *w@scale@, const float *x, int columns)
{
@lines@
}
