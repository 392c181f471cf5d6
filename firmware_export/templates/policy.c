/* Compiles the policy and its self-test: cc -std=c99 -O2 -c @name@.c
 * Leave the second header out to save its flash. */
#define @NAME@_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"
