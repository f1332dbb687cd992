// Package certify keeps the certificates by which the processes of the suite know each
// other: an authority of the suite's own, and one certificate per service.
//
// All of it is in one folder, as PEM:
//
//	ca.pem         the authority's certificates, the newest first, and those before it
//	               that something may still be signed by
//	ca-key.pem     the key of the newest
//	NAME.pem       the certificate of a service
//	NAME-key.pem   its key
//
// What is always true:
//   - A key is made once, readable by its owner alone, and never written over unless
//     that was asked for.
//   - Each file appears whole. A certificate is renewed by one rename, and fits its key
//     before and after.
//   - A certificate says whose it is by DNS names, IDENTITY.latchkey.internal (see Name),
//     which no public authority can sign.
package certify
