/* shape.c - see shape.h. */
#include "shape.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64 /* beyond it all is refused anyway */
#define NAMES_MAX 300

struct name {
    const char *text;
    size_t length;
};

struct reading {
    const char *at;
    const char *end;
    int depth;
    struct shape *shape;
    char *decoded; /* of all strings; never longer than the text */
    size_t used;
    struct name names[NAMES_MAX];
};

static bool read_value(struct reading *reading, enum shape_kind *kind);

static int
peek(const struct reading *reading)
{
    return reading->at < reading->end ? (unsigned char)*reading->at : -1;
}

static bool
eat(struct reading *reading, int byte)
{
    bool same = peek(reading) == byte;

    reading->at += same;
    return same;
}

static void
skip_space(struct reading *reading)
{
    while (peek(reading) > 0 && strchr(" \t\r\n", peek(reading)) != NULL)
        reading->at++;
}

/* ---- Strings, as code points -------------------------------------------- */

static long
read_hex(struct reading *reading)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *digit;
    long value = 0;
    int i;

    for (i = 0; i < 4; i++) {
        if (peek(reading) <= 0 ||
            (digit = strchr(digits, peek(reading))) == NULL)
            return -1;
        value = value * 16 + (digit - digits) % 16;
        reading->at++;
    }
    return value;
}

static long
read_escape(struct reading *reading)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    const char *name;
    const char *back;
    long high;
    long low;

    if (!eat(reading, 'u')) {
        if (peek(reading) <= 0 ||
            (name = strchr(names, peek(reading))) == NULL)
            return -1;
        reading->at++;
        return values[name - names];
    }
    high = read_hex(reading);
    if (high < 0xD800 || high > 0xDFFF)
        return high;
    back = reading->at;
    if (high < 0xDC00 && eat(reading, '\\') && eat(reading, 'u') &&
        (low = read_hex(reading)) >= 0xDC00 && low <= 0xDFFF)
        return 0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00);
    reading->at = back;
    reading->shape->has_lone = true;
    return high;
}

/* One code point of UTF-8: read what the first byte announces, then compare
 * the value with what so many bytes are for. */
static long
read_utf8(struct reading *reading)
{
    static const long least[] = {0, 0x80, 0x800, 0x10000};
    long value = peek(reading);
    int more = value < 0x80   ? 0
               : value < 0xC0 ? -1
               : value < 0xE0 ? 1
               : value < 0xF0 ? 2
               : value < 0xF8 ? 3
                              : -1;
    int i;

    if (more <= 0) {
        reading->at++;
        return more == 0 ? value : -1;
    }
    value &= 0x3F >> more;
    reading->at++;
    for (i = 0; i < more; i++, reading->at++) {
        if (peek(reading) < 0x80 || peek(reading) > 0xBF)
            return -1;
        value = value * 64 + (peek(reading) & 0x3F);
    }
    if (value < least[more] || value > 0x10FFFF ||
        (value >= 0xD800 && value <= 0xDFFF))
        return -1;
    return value;
}

/* The value as UTF-8; the exact bytes matter for equality only. */
static void
keep(struct reading *reading, long value)
{
    char *out = reading->decoded + reading->used;
    int more = value < 0x80 ? 0 : value < 0x800 ? 1 : value < 0x10000 ? 2 : 3;
    static const int first[] = {0, 0xC0, 0xE0, 0xF0};
    int i;

    out[0] = (char)(first[more] | (value >> (6 * more)));
    for (i = 1; i <= more; i++)
        out[i] = (char)(0x80 | ((value >> (6 * (more - i))) & 0x3F));
    reading->used += (size_t)more + 1;
}

static bool
read_string(struct reading *reading, struct name *string)
{
    size_t start = reading->used;
    long value;

    if (!eat(reading, '"'))
        return false;
    while (!eat(reading, '"')) {
        if (peek(reading) < 0x20)
            return false; /* also the end */
        value = eat(reading, '\\') ? read_escape(reading) : read_utf8(reading);
        if (value < 0)
            return false;
        if (value == 0)
            reading->shape->has_nul = true;
        keep(reading, value);
    }
    string->text = reading->decoded + start;
    string->length = reading->used - start;
    return true;
}

/* ---- Numbers ------------------------------------------------------------ */

static size_t
eat_digits(struct reading *reading)
{
    size_t count = 0;

    while (peek(reading) >= '0' && peek(reading) <= '9') {
        reading->at++;
        count++;
    }
    return count;
}

static bool
read_number(struct reading *reading, double *value)
{
    const char *start = reading->at;
    char *copy;
    size_t digits;
    size_t length;
    bool is_whole = true;
    bool starts_with_zero;

    eat(reading, '-');
    starts_with_zero = peek(reading) == '0';
    digits = eat_digits(reading);
    if (digits == 0 || (digits > 1 && starts_with_zero))
        return false;
    if (eat(reading, '.')) {
        is_whole = false;
        if (eat_digits(reading) == 0)
            return false;
    }
    if (eat(reading, 'e') || eat(reading, 'E')) {
        is_whole = false;
        if (!eat(reading, '+'))
            eat(reading, '-');
        if (eat_digits(reading) == 0)
            return false;
    }
    length = (size_t)(reading->at - start);
    if (!is_whole || digits > 15)
        reading->shape->is_tame = false;
    if (length > reading->shape->longest)
        reading->shape->longest = length;
    copy = strndup(start, length);
    *value = copy != NULL ? strtod(copy, NULL) : 0;
    free(copy);
    return true;
}

/* ---- Values ------------------------------------------------------------- */

static bool
read_array(struct reading *reading, enum shape_kind *kind)
{
    enum shape_kind item;

    *kind = SHAPE_STRINGS;
    skip_space(reading);
    if (eat(reading, ']'))
        return true;
    do {
        if (!read_value(reading, &item))
            return false;
        if (item != SHAPE_STRING)
            *kind = SHAPE_OTHER;
    } while (eat(reading, ','));
    return eat(reading, ']');
}

static bool
is_named(const struct name *name, const char *text)
{
    return name->length == strlen(text) &&
           memcmp(name->text, text, name->length) == 0;
}

/* A member of the outermost object. */
static void
note_member(struct reading *reading, const struct name *name,
            enum shape_kind kind, const struct name *string, double number)
{
    struct shape *shape = reading->shape;
    size_t i;
    size_t length;

    for (i = 0; i < shape->members && i < NAMES_MAX; i++) {
        if (reading->names[i].length == name->length &&
            memcmp(reading->names[i].text, name->text, name->length) == 0)
            shape->is_twice = true;
    }
    if (shape->members < NAMES_MAX)
        reading->names[shape->members] = *name;
    shape->members++;
    if (is_named(name, "order_ids"))
        shape->ids_kind = kind;
    if (is_named(name, "error"))
        shape->error_kind = kind;
    if (is_named(name, "code")) {
        shape->code_kind = kind;
        shape->code = number;
    }
    if (is_named(name, "symbol")) {
        shape->symbol_kind = kind;
        length = kind == SHAPE_STRING ? string->length : 0;
        if (length >= sizeof shape->symbol)
            length = sizeof shape->symbol - 1;
        memcpy(shape->symbol, length > 0 ? string->text : "", length);
        shape->symbol[length] = '\0';
    }
}

/* A string or a number with its value, anything else without. */
static bool
read_member_value(struct reading *reading, enum shape_kind *kind,
                  struct name *string, double *number)
{
    bool ok;

    skip_space(reading);
    if (peek(reading) == '"') {
        *kind = SHAPE_STRING;
        ok = read_string(reading, string);
    }
    else if (peek(reading) == '-' ||
             (peek(reading) >= '0' && peek(reading) <= '9')) {
        *kind = SHAPE_NUMBER;
        ok = read_number(reading, number);
    }
    else {
        return read_value(reading, kind);
    }
    skip_space(reading);
    return ok;
}

static bool
read_object(struct reading *reading)
{
    bool is_outermost = reading->depth == 1;
    struct name name;
    struct name string = {"", 0};
    enum shape_kind kind;
    double number = 0;

    skip_space(reading);
    if (eat(reading, '}'))
        return true;
    do {
        skip_space(reading);
        if (!read_string(reading, &name))
            return false;
        skip_space(reading);
        if (!eat(reading, ':') ||
            !read_member_value(reading, &kind, &string, &number))
            return false;
        if (is_outermost)
            note_member(reading, &name, kind, &string, number);
    } while (eat(reading, ','));
    return eat(reading, '}');
}

static bool
read_word(struct reading *reading, const char *word)
{
    while (*word != '\0' && eat(reading, *word))
        word++;
    return *word == '\0';
}

static bool
read_nested(struct reading *reading, enum shape_kind *kind)
{
    bool ok;

    if (++reading->depth > reading->shape->depth)
        reading->shape->depth = reading->depth;
    if (reading->depth > DEPTH_MAX)
        return false;
    ok = *reading->at++ == '{' ? read_object(reading)
                               : read_array(reading, kind);
    reading->depth--;
    return ok;
}

static bool
read_value(struct reading *reading, enum shape_kind *kind)
{
    struct name string;
    double number;
    bool ok;

    *kind = SHAPE_OTHER;
    skip_space(reading);
    switch (peek(reading)) {
    case '{':
    case '[':
        ok = read_nested(reading, kind);
        break;
    case '"':
        *kind = SHAPE_STRING;
        ok = read_string(reading, &string);
        break;
    case 't':
        ok = read_word(reading, "true");
        break;
    case 'f':
        ok = read_word(reading, "false");
        break;
    case 'n':
        *kind = SHAPE_NULL;
        ok = read_word(reading, "null");
        break;
    default:
        *kind = SHAPE_NUMBER;
        ok = read_number(reading, &number);
    }
    skip_space(reading);
    return ok;
}

/* ---- What it says ------------------------------------------------------- */

void
shape_read(const char *text, size_t length, struct shape *shape)
{
    struct reading reading = {
        .at = text, .end = text + length, .shape = shape};
    enum shape_kind kind;

    *shape = (struct shape){.is_tame = true};
    reading.decoded = malloc(length + 1);
    if (reading.decoded == NULL)
        abort();
    shape->is_json = read_value(&reading, &kind) && reading.at == reading.end;
    while (length > 0 && strchr(" \t\r\n", *text) != NULL && *text != '\0') {
        text++;
        length--;
    }
    shape->is_object = shape->is_json && *text == '{';
    free(reading.decoded);
}

bool
shape_is_readable(const struct shape *shape)
{
    return shape->is_json && shape->depth <= 32 && shape->longest <= 63 &&
           !shape->has_nul && !shape->has_lone && !shape->is_twice &&
           shape->members <= 256;
}

static bool
is_given(enum shape_kind kind)
{
    return kind != SHAPE_ABSENT && kind != SHAPE_NULL;
}

bool
shape_code(const struct shape *shape, int *code)
{
    if (!shape->is_object || shape->code_kind != SHAPE_NUMBER ||
        !(shape->code >= -32768 && shape->code <= 65535))
        return false;
    *code = (int)shape->code;
    return *code == shape->code;
}

static bool
is_same_word(const char *one, const char *other)
{
    for (; *one != '\0' && *other != '\0'; one++, other++) {
        if (*one != *other && ((*one ^ *other) != 0x20 ||
                               (*one | 0x20) < 'a' || (*one | 0x20) > 'z'))
            return false;
    }
    return *one == *other;
}

bool
shape_is_of_another(const struct shape *shape, const char *symbol)
{
    if (!is_given(shape->symbol_kind))
        return false;
    if (shape->symbol_kind != SHAPE_STRING)
        return true;
    return shape->symbol[0] != '\0' && !is_same_word(shape->symbol, symbol);
}

bool
shape_is_success(const struct shape *shape, const char *symbol)
{
    return shape->is_object && !is_given(shape->code_kind) &&
           !is_given(shape->error_kind) &&
           !shape_is_of_another(shape, symbol) &&
           (shape->symbol_kind != SHAPE_STRING || shape->symbol[0] != '\0') &&
           (!is_given(shape->ids_kind) || shape->ids_kind == SHAPE_STRINGS) &&
           (is_given(shape->symbol_kind) || is_given(shape->ids_kind));
}
