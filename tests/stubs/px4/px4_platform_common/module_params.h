#include "stub_px4.hpp"
