/* Compiles the policy, its executor and the self-tests of both: of these files, compile only this one. */
#ifndef ARDUINO /* which compiles every file of a library, @name@.c too */
#define @NAME@_IMPLEMENTATION
#endif
#define @NAME@_EXECUTOR_IMPLEMENTATION
#include "@name@.h"
#include "@name@_vectors.h"
#include "@name@_executor.h"
#include "@name@_executor_vectors.h"
