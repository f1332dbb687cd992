// Package seal encrypts the small secrets that the suite has to read again, and so
// cannot keep as hashes: signing keys, secrets of one-time passwords, passwords of
// other servers.
//
// A Box seals with its first secret and opens what any of them sealed, so a secret is
// replaced by putting the new one before the old one, and taking that away once
// everything was sealed anew.
//
// What is sealed is AES-256-GCM (NIST SP 800-38D) under a key that HKDF-SHA256 (RFC
// 5869) makes of the secret: one byte for the form, 4 bytes that name the key, 12
// random bytes, the ciphertext and its tag. The name under which something is sealed
// is authenticated: what was sealed as one thing cannot be opened as another.
package seal
