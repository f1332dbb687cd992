// Command permissions runs the permissions service alone.
package main

import (
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/permissions"
)

func main() { server.Main(permissions.Part) }
