// Package mail hands messages to an SMTP server (RFC 5321), which delivers them.
//
// What is always true:
//   - A password crosses a network encrypted only: other than on loopback the connection
//     is by TLS from its beginning (smtps) or changes to it (STARTTLS) before anything is
//     said, and the server has shown a certificate for its name.
//   - The password is read again for each connection, so that it can be changed while
//     the process runs. It is in no error and no log.
//   - A message goes to one address, and no text of it can become a header or a command.
package mail
