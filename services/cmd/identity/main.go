// Command identity runs the identity service in a process of its own.
package main

import (
	"latchkey.dev/services/identity"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
)

func main() { server.Main(server.Engines{"postgres": postgres.Open}, identity.Part) }
