/* json.c - a strict scan, and only then cJSON.
 *
 * cJSON accepts `01`, invalid UTF-8, raw control characters and a second
 * document, and cuts strings and keys at \u0000.  On a reply that decides
 * whether orders are gone none of that may pass: the scan refuses whatever
 * Python's json refuses, and what a double or a C string cannot hold. */
#include "core.h"

#include <string.h>

/* cJSON writes a static variable on every parse; with the system's library
 * two threads would race on it. */
static pthread_mutex_t parse_lock = PTHREAD_MUTEX_INITIALIZER;

#define NUMBER_MAX 63 /* bytes of a number that every cJSON reads whole */

struct scan {
    const unsigned char *at;
    const unsigned char *end;
    int depth;
    bool is_exact; /* no number but such as a double holds */
};

static bool scan_value(struct scan *scan);

static bool
scan_byte(struct scan *scan, unsigned char byte)
{
    if (scan->at == scan->end || *scan->at != byte)
        return false;
    scan->at++;
    return true;
}

static bool
scan_word(struct scan *scan, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(scan->end - scan->at) < length ||
        memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static void
scan_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\t' ||
                                    *scan->at == '\n' || *scan->at == '\r'))
        scan->at++;
}

static size_t
scan_digits(struct scan *scan)
{
    const unsigned char *start = scan->at;

    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9')
        scan->at++;
    return (size_t)(scan->at - start);
}

/* An integer a double holds exactly: at most 2^53. */
static bool
integer_is_exact(const unsigned char *digits, size_t length)
{
    static const char limit[] = "9007199254740992";

    if (length != sizeof limit - 1)
        return length < sizeof limit - 1;
    return memcmp(digits, limit, length) <= 0;
}

/* The exponent's value, cut at 9999; *negative tells its sign. */
static bool
scan_exponent(struct scan *scan, int *exponent)
{
    bool negative = false;
    const unsigned char *digit;
    int value = 0;

    if (!scan_byte(scan, '+'))
        negative = scan_byte(scan, '-');
    digit = scan->at;
    if (scan_digits(scan) == 0)
        return false;
    for (; digit < scan->at; digit++)
        value = value < 1000 ? value * 10 + (*digit - '0') : 9999;
    *exponent = negative ? -value : value;
    return true;
}

/* The grammar decides what is JSON; what a double cannot hold is noted. */
static bool
scan_number(struct scan *scan)
{
    const unsigned char *start = scan->at;
    const unsigned char *digits;
    size_t length;
    bool is_integer = true;
    int exponent = 0;

    scan_byte(scan, '-');
    digits = scan->at;
    length = scan_digits(scan);
    if (length == 0 || (length > 1 && digits[0] == '0'))
        return false;
    if (scan_byte(scan, '.')) {
        is_integer = false;
        if (scan_digits(scan) == 0)
            return false;
    }
    if (scan_byte(scan, 'e') || scan_byte(scan, 'E')) {
        is_integer = false;
        if (!scan_exponent(scan, &exponent))
            return false;
    }
    if (is_integer ? !integer_is_exact(digits, length)
                   : (int)length + exponent > 308)
        scan->is_exact = false;
    return scan->at - start <= NUMBER_MAX;
}

static bool
scan_hex4(struct scan *scan, unsigned *value)
{
    unsigned digit;
    int i;

    *value = 0;
    for (i = 0; i < 4 && scan->at < scan->end; i++, scan->at++) {
        if (*scan->at >= '0' && *scan->at <= '9')
            digit = (unsigned)(*scan->at - '0');
        else if (*scan->at >= 'a' && *scan->at <= 'f')
            digit = (unsigned)(*scan->at - 'a' + 10);
        else if (*scan->at >= 'A' && *scan->at <= 'F')
            digit = (unsigned)(*scan->at - 'A' + 10);
        else
            return false;
        *value = *value << 4 | digit;
    }
    return i == 4;
}

/* What follows `\u`: no NUL, and surrogates only in pairs. */
static bool
scan_unicode_escape(struct scan *scan)
{
    unsigned value;

    if (!scan_hex4(scan, &value) || value == 0 ||
        (value >= 0xDC00 && value <= 0xDFFF))
        return false;
    if (value < 0xD800 || value > 0xDBFF)
        return true;
    return scan_word(scan, "\\u") && scan_hex4(scan, &value) &&
           value >= 0xDC00 && value <= 0xDFFF;
}

static bool
scan_escape(struct scan *scan)
{
    if (scan->at == scan->end)
        return false;
    if (scan_byte(scan, 'u'))
        return scan_unicode_escape(scan);
    /* The NUL behind these eight is not one of them. */
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result) */
    return memchr("\"\\/bfnrt", *scan->at++, 8) != NULL;
}

/* One character of more than one byte: shortest form, no surrogate, at most
 * U+10FFFF (RFC 3629). */
static bool
scan_multibyte(struct scan *scan)
{
    unsigned char first = *scan->at++;
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    int more;
    int i;

    if (first >= 0xC2 && first <= 0xDF)
        more = 1;
    else if (first >= 0xE0 && first <= 0xEF)
        more = 2;
    else if (first >= 0xF0 && first <= 0xF4)
        more = 3;
    else
        return false;
    if (first == 0xE0)
        low = 0xA0;
    else if (first == 0xED)
        high = 0x9F;
    else if (first == 0xF0)
        low = 0x90;
    else if (first == 0xF4)
        high = 0x8F;
    for (i = 0; i < more; i++, low = 0x80, high = 0xBF) {
        if (scan->at == scan->end || *scan->at < low || *scan->at > high)
            return false;
        scan->at++;
    }
    return true;
}

static bool
is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* How many of eight bytes come before the first that is not plain.  One is
 * known by its high bit: below 0x80, `byte - n` has it where byte < n alone.
 * The borrow of one that is not plain may spoil what follows it, which does
 * not count. */
static size_t
count_plain(const unsigned char *bytes)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t eight;
    uint64_t odd;

    memcpy(&eight, bytes, sizeof(eight));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    eight = __builtin_bswap64(eight);
#endif
    odd = eight;
    odd |= eight - ones * 0x20;
    odd |= (eight ^ (ones * '"')) - ones;
    odd |= (eight ^ (ones * '\\')) - ones;
    odd &= ones * 0x80;
    return odd == 0 ? 8 : (size_t)__builtin_ctzll(odd) / 8;
}

/* Eight bytes at a time: one by one took a tenth of the time of a long reply. */
static void
scan_plain(struct scan *scan)
{
    size_t count = 8;

    while (count == 8 && scan->end - scan->at >= 8) {
        count = count_plain(scan->at);
        scan->at += count;
    }
    while (scan->at < scan->end && is_plain(*scan->at))
        scan->at++;
}

static bool
scan_string(struct scan *scan)
{
    if (!scan_byte(scan, '"'))
        return false;
    for (scan_plain(scan); scan->at < scan->end; scan_plain(scan)) {
        if (*scan->at == '"') {
            scan->at++;
            return true;
        }
        if (*scan->at < 0x20)
            return false;
        if (*scan->at >= 0x80) {
            if (!scan_multibyte(scan))
                return false;
        }
        else if (*scan->at++ == '\\' && !scan_escape(scan)) {
            return false;
        }
    }
    return false;
}

static bool
scan_array(struct scan *scan)
{
    scan_space(scan);
    if (scan_byte(scan, ']'))
        return true;
    do {
        if (!scan_value(scan))
            return false;
    } while (scan_byte(scan, ','));
    return scan_byte(scan, ']');
}

static bool
scan_object(struct scan *scan)
{
    scan_space(scan);
    if (scan_byte(scan, '}'))
        return true;
    do {
        scan_space(scan);
        if (!scan_string(scan))
            return false;
        scan_space(scan);
        if (!scan_byte(scan, ':') || !scan_value(scan))
            return false;
    } while (scan_byte(scan, ','));
    return scan_byte(scan, '}');
}

static bool
scan_nested(struct scan *scan, bool (*inside)(struct scan *))
{
    bool ok;

    if (scan->depth == ESP_DEPTH_MAX)
        return false;
    scan->at++;
    scan->depth++;
    ok = inside(scan);
    scan->depth--;
    return ok;
}

/* A value with the white space around it. */
static bool
scan_value(struct scan *scan)
{
    bool ok = false;

    scan_space(scan);
    if (scan->at == scan->end)
        return false;
    switch (*scan->at) {
    case '{':
        ok = scan_nested(scan, scan_object);
        break;
    case '[':
        ok = scan_nested(scan, scan_array);
        break;
    case '"':
        ok = scan_string(scan);
        break;
    case 't':
        ok = scan_word(scan, "true");
        break;
    case 'f':
        ok = scan_word(scan, "false");
        break;
    case 'n':
        ok = scan_word(scan, "null");
        break;
    default:
        ok = scan_number(scan);
    }
    scan_space(scan);
    return ok;
}

bool
json_scan(const char *data, size_t length, bool *is_exact)
{
    struct scan scan = {.at = (const unsigned char *)data,
                        .end = (const unsigned char *)data + length,
                        .is_exact = true};
    bool ok = scan_value(&scan) && scan.at == scan.end;

    *is_exact = scan.is_exact;
    return ok;
}

/* Compares each member with those before it: ESP_MEMBERS_MAX bounds the
 * work. */
static enum json_result
check_members(const cJSON *root)
{
    const cJSON *member;
    const cJSON *earlier;
    int count = 0;

    if (!cJSON_IsObject(root))
        return JSON_OK;
    for (member = root->child; member != NULL; member = member->next) {
        if (++count > ESP_MEMBERS_MAX)
            return JSON_REFUSED;
        for (earlier = root->child; earlier != member;
             earlier = earlier->next) {
            if (strcmp(earlier->string, member->string) == 0)
                return JSON_TWICE;
        }
    }
    return JSON_OK;
}

#ifdef ESP_PRIVATE_LIBRARIES

static pthread_once_t arena_once = PTHREAD_ONCE_INIT;

static cJSON *
parse(const char *data, size_t size)
{
    pthread_once(&arena_once, arena_init);
    return arena_parse(data, size);
}

void
json_free(cJSON *root)
{
    arena_free(root);
}

#else

static cJSON *
parse(const char *data, size_t size)
{
    return cJSON_ParseWithLengthOpts(data, size, NULL, 1);
}

void
json_free(cJSON *root)
{
    cJSON_Delete(root);
}

#endif

enum json_result
json_parse(const char *data, size_t length, cJSON **root, bool *is_exact)
{
    enum json_result result;

    *root = NULL;
    if (!json_scan(data, length, is_exact))
        return JSON_REFUSED;
    pthread_mutex_lock(&parse_lock);
    *root = parse(data, length + 1);
    pthread_mutex_unlock(&parse_lock);
    if (*root == NULL)
        return JSON_NO_MEMORY; /* the scan accepts only what cJSON reads */
    result = check_members(*root);
    if (result != JSON_OK) {
        json_free(*root);
        *root = NULL;
    }
    return result;
}

void
json_lock_prepare_fork(void)
{
    pthread_mutex_lock(&parse_lock);
}

void
json_lock_after_fork(bool in_child)
{
    if (in_child)
        pthread_mutex_init(&parse_lock, NULL);
    else
        pthread_mutex_unlock(&parse_lock);
}
