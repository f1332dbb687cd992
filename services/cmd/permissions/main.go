// Command permissions runs the permissions service alone.
package main

import (
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/store/postgres"
	"latchkey.dev/services/permissions"
)

func main() { server.Main(server.Engines{"postgres": postgres.Open}, permissions.Part) }
