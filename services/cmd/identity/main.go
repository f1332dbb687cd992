// Command identity runs the identity service in a process of its own.
package main

import (
	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/server"
)

func main() { server.Main(identity.Part) }
