// Package token makes the opaque secrets that callers prove themselves with, and
// tells a well-formed one from anything else without a look-up.
//
// A token is a prefix that says what it is ("lk_" for a session), 32 random bytes
// as 43 characters of base 62, and a CRC-32 of all before it as 6 more. The checksum
// is no secret: it lets scanners of source code recognize a lost token, and lets a
// server turn away noise before it costs anything.
//
// What is always true: a token is handed out once and never kept; what is kept is
// the SHA-256 of its text. 256 random bits need no slow hash.
package token
