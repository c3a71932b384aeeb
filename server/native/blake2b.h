/* BLAKE2b (RFC 7693) under a key, for digests of up to 64 bytes of at least one byte: what features/tokens.py hashes
 * with. The key fills the first block; its compression is done once and kept.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLAKE_BLOCK 128
#define BLAKE_KEY_MAX 64

typedef struct {
  uint64_t h[8];
} BlakeStart; /* after the key's block */

typedef struct {
  uint64_t h[8], length; /* bytes compressed, the key's block among them */
  uint8_t block[BLAKE_BLOCK];
  size_t held;
} Blake;

static const uint64_t blake_iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const uint8_t blake_sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static uint64_t load64(const uint8_t *at) {
  uint64_t value = 0;
  for (int i = 0; i < 8; i++) value |= (uint64_t)at[i] << (8 * i);
  return value;
}

static uint64_t rotated(uint64_t x, int n) { return x >> n | x << (64 - n); }

#define BLAKE_MIX(a, b, c, d, x, y) \
  a += b + (x); d = rotated(d ^ a, 32); c += d; b = rotated(b ^ c, 24); \
  a += b + (y); d = rotated(d ^ a, 16); c += d; b = rotated(b ^ c, 63)

#define BLAKE_ROUND(s) do { \
  BLAKE_MIX(v[0], v[4], v[8], v[12], m[(s)[0]], m[(s)[1]]); \
  BLAKE_MIX(v[1], v[5], v[9], v[13], m[(s)[2]], m[(s)[3]]); \
  BLAKE_MIX(v[2], v[6], v[10], v[14], m[(s)[4]], m[(s)[5]]); \
  BLAKE_MIX(v[3], v[7], v[11], v[15], m[(s)[6]], m[(s)[7]]); \
  BLAKE_MIX(v[0], v[5], v[10], v[15], m[(s)[8]], m[(s)[9]]); \
  BLAKE_MIX(v[1], v[6], v[11], v[12], m[(s)[10]], m[(s)[11]]); \
  BLAKE_MIX(v[2], v[7], v[8], v[13], m[(s)[12]], m[(s)[13]]); \
  BLAKE_MIX(v[3], v[4], v[9], v[14], m[(s)[14]], m[(s)[15]]); \
} while (0)

/* `length`: bytes up to the end of this block; far below 2^64, so the counter's upper half is 0. */
static void blake_compress(uint64_t h[8], const uint8_t *block, uint64_t length, int last) {
  uint64_t v[16], m[16];
  for (int i = 0; i < 16; i++) m[i] = load64(block + 8 * i);
  memcpy(v, h, 64);
  memcpy(v + 8, blake_iv, 64);
  v[12] ^= length;
  if (last) v[14] = ~v[14];
  /* written out, so that the places in `m` are constants */
  BLAKE_ROUND(blake_sigma[0]); BLAKE_ROUND(blake_sigma[1]); BLAKE_ROUND(blake_sigma[2]); BLAKE_ROUND(blake_sigma[3]);
  BLAKE_ROUND(blake_sigma[4]); BLAKE_ROUND(blake_sigma[5]); BLAKE_ROUND(blake_sigma[6]); BLAKE_ROUND(blake_sigma[7]);
  BLAKE_ROUND(blake_sigma[8]); BLAKE_ROUND(blake_sigma[9]); BLAKE_ROUND(blake_sigma[0]); BLAKE_ROUND(blake_sigma[1]);
  for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

/* A key of 1 to 64 bytes and a digest of 1 to 64. */
static BlakeStart blake_keyed(const uint8_t *key, size_t key_n, size_t digest_n) {
  uint8_t block[BLAKE_BLOCK] = {0};
  BlakeStart start;
  memcpy(block, key, key_n);
  memcpy(start.h, blake_iv, sizeof start.h);
  start.h[0] ^= 0x01010000 ^ (uint64_t)key_n << 8 ^ digest_n;
  blake_compress(start.h, block, BLAKE_BLOCK, 0);
  return start;
}

static void blake_begin(Blake *b, const BlakeStart *start) {
  memcpy(b->h, start->h, sizeof b->h);
  b->length = BLAKE_BLOCK;
  b->held = 0;
}

/* A full block waits until more comes: the last one is compressed in another way. */
static void blake_add(Blake *b, const uint8_t *bytes, size_t n) {
  while (n) {
    if (b->held == BLAKE_BLOCK) {
      b->length += BLAKE_BLOCK;
      blake_compress(b->h, b->block, b->length, 0);
      b->held = 0;
    }
    size_t take = BLAKE_BLOCK - b->held < n ? BLAKE_BLOCK - b->held : n;
    memcpy(b->block + b->held, bytes, take);
    b->held += take;
    bytes += take;
    n -= take;
  }
}

/* At least one byte was added. */
static void blake_end(Blake *b, uint8_t *digest, size_t digest_n) {
  memset(b->block + b->held, 0, BLAKE_BLOCK - b->held);
  blake_compress(b->h, b->block, b->length + b->held, 1);
  for (size_t i = 0; i < digest_n; i++) digest[i] = (uint8_t)(b->h[i / 8] >> (8 * (i % 8)));
}
