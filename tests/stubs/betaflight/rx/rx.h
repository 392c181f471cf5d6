#include "stub_betaflight.h"
