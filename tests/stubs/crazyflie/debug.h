#ifndef STUB_DEBUG_H
#define STUB_DEBUG_H
void stub_print(const char *text);
#define DEBUG_PRINT(text) stub_print(text)
#endif
