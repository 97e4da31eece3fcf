/* shape.h - an independent, simple reading of a JSON text.
 *
 * Written from RFC 8259 and the contract, not from json.c, reply.c or cJSON,
 * and sharing no code with them: what the core says of a reply is held against
 * what this says. */
#ifndef SHAPE_H
#define SHAPE_H

#include <stdbool.h>
#include <stddef.h>

enum shape_kind {
    SHAPE_ABSENT,
    SHAPE_NULL,
    SHAPE_STRING,
    SHAPE_NUMBER,
    SHAPE_STRINGS, /* an array of strings only, or an empty one */
    SHAPE_OTHER,
};

struct shape {
    bool is_json;     /* one document of RFC 8259 in UTF-8, and nothing else */
    bool is_object;   /* ... which is an object */
    bool is_twice;    /* ... of which two members have one name */
    bool has_nul;     /* a \u0000 anywhere */
    bool has_lone;    /* half a surrogate pair anywhere */
    bool is_tame;     /* every number is an integer of at most 15 digits */
    int depth;        /* 1: a flat object */
    size_t members;   /* of the object */
    size_t longest;   /* number, in bytes */
    double code;      /* if that is a number */
    char symbol[128]; /* if that is a string; cut */
    enum shape_kind symbol_kind;
    enum shape_kind ids_kind;
    enum shape_kind code_kind;
    enum shape_kind error_kind;
};

void shape_read(const char *text, size_t length, struct shape *shape);

/* The rules that are ours, beyond RFC 8259: what the core may read at all. */
bool shape_is_readable(const struct shape *shape);

/* The code of the API, where there is one. */
bool shape_code(const struct shape *shape, int *code);

/* Whether it names another symbol than `symbol`. */
bool shape_is_of_another(const struct shape *shape, const char *symbol);

/* Whether it is what a 200 must be to mean "cancelled". */
bool shape_is_success(const struct shape *shape, const char *symbol);

#endif
