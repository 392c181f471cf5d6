/* Feeds the loader @rounds@ damaged files in memory of exactly their size, under the address sanitizer. Prints how many
 * were accepted although something in them had changed: none may be. */
#define @NAME@_IMPLEMENTATION
#include "@name@.h"
#include "steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t seed = 1u;

static uint32_t random_number(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * below) >> 32);
}

static void put(unsigned char *to, uint32_t word)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (unsigned char)(word >> (8 * i));
    }
}

int main(void)
{
    const uint32_t whole = (uint32_t)sizeof steps_blob;
    long accepted = 0;
    for (long round = 0; round < @rounds@; round++) {
        uint32_t size = whole;
        if (random_number(3u) == 0u) {
            size = random_number(2u) != 0u ? random_number(whole) : random_number(64u);
        }
        unsigned char *file = malloc(size ? size : 1u);
        if (!file) {
            return 1;
        }
        memcpy(file, steps_blob, size);
        for (uint32_t i = random_number(4u); size > 0u && i > 0u; i--) {
            const uint32_t where = random_number(2u) != 0u ? random_number(size) : random_number(size < 32u ? size : 32u);
            file[where] ^= (unsigned char)(1u << random_number(8u));
        }
        if (size >= 32u && random_number(2u) != 0u) { /* with the CRC of the header put right */
            put(file + 28, @name@_crc_of(file, 28u));
        }
        const @name@_weights *weights = 0;
        const uint32_t said = random_number(4u) == 0u ? random_number(size + 1u) : size;
        const int changed = said != whole || memcmp(file, steps_blob, size) != 0;
        if (@name@_load(file, said, &weights) == @NAME@_OK && changed) {
            accepted++;
        }
        free(file);
    }
    printf("%ld\n", accepted);
    return 0;
}
