/* Exits with 0 when the policy, compiled as it is, is what was exported. */
#include "@header@"
#include "@test_header@"

@declaration@
int main(void)
{
    return @test@ ? 0 : 1;
}
