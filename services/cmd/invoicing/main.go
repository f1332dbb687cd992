// Command invoicing runs the invoicing service in a process of its own.
package main

import (
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/invoicing"
)

func main() { server.Main(server.Engines{"postgres": postgres.Open}, invoicing.Part) }
