/* The turn about the vertical from the world of the stack's attitude, whose north is anywhere, to that of the pose. */
static float align_cos = 1.0f, align_sin = 0.0f;
static uint8_t align_known;

static float align_root(float x)
{
    return x > 0.0f ? x * @name@_exec_rsqrt(x) : 0.0f;
}

/* A pose says that the yaw of this attitude is `yaw`; `weight` of it is believed, all of it at first. */
static void align_learn(const float q[4], float yaw, float weight)
{
    float m[9], heading_cos, heading_sin, yaw_cos, yaw_sin;
    const float finite[5] = {q[0], q[1], q[2], q[3], yaw};
    if (!@name@_exec_finite(finite, 5) || yaw > 1000.0f || yaw < -1000.0f) {
        return;
    }
    @name@_exec_matrix(q, m);
    @name@_exec_heading(m, &heading_cos, &heading_sin);
    @name@_exec_cos_sin(yaw, &yaw_cos, &yaw_sin);
    const float part = align_known != 0u ? weight : 1.0f;
    const float c = align_cos + part * (yaw_cos * heading_cos + yaw_sin * heading_sin - align_cos);
    const float s = align_sin + part * (yaw_sin * heading_cos - yaw_cos * heading_sin - align_sin);
    const float square = c * c + s * s;
    if (square > 1e-6f) { /* else the two are opposite: wait for the next pose */
        const float n = @name@_exec_rsqrt(square);
        align_cos = c * n;
        align_sin = s * n;
        align_known = 1u;
    }
}

/* The attitude in the world of the pose. */
static void align_apply(const float q[4], float out[4])
{
    float half_cos, half_sin;
    if (align_cos > 0.0f) {
        half_cos = align_root(0.5f * (1.0f + align_cos));
        half_sin = 0.5f * align_sin / half_cos;
    } else {
        half_sin = align_root(0.5f * (1.0f - align_cos));
        half_cos = 0.5f * align_sin / half_sin;
    }
    out[0] = half_cos * q[0] - half_sin * q[3];
    out[1] = half_cos * q[1] - half_sin * q[2];
    out[2] = half_cos * q[2] + half_sin * q[1];
    out[3] = half_cos * q[3] + half_sin * q[0];
}
