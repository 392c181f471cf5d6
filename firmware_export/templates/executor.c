/* Compiles the policy, its executor and the self-tests of both: of these files, compile only this one. */
#define @NAME@_IMPLEMENTATION
#define @NAME@_EXECUTOR_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"
#include "@name@_executor.h"
#include "@name@_executor_vectors.h"
