package postgrestest

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// standbyName is by which a primary knows the standby that it waits for.
const standbyName = "standby"

// Standby returns a standby of the cluster, without which the cluster acknowledges no commit
// from now on. It ends with the test.
func (c *Cluster) Standby(t testing.TB) *Cluster {
	t.Helper()
	s, err := place(c.bin, c.extra)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	if err := s.Follow(c); err != nil {
		t.Fatal(err)
	}
	return s
}

// Follow throws away what a cluster has that does not run, and makes it the standby of
// another.
func (c *Cluster) Follow(primary *Cluster) error {
	if err := os.RemoveAll(c.data()); err != nil {
		return err
	}
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=latchkey application_name=%s", primary.port, standbyName)
	err := c.run("pg_basebackup", "--pgdata="+c.data(), "--dbname="+source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if err == nil {
		err = c.Start()
	}
	if err == nil {
		// It is in a file of the primary, so that it also holds when that comes back.
		err = primary.execute("ALTER SYSTEM SET synchronous_standby_names = '" + standbyName + "'")
	}
	if err == nil {
		err = primary.execute("SELECT pg_reload_conf()")
	}
	return err
}

// Promote makes a standby a primary, which acknowledges commits alone.
func (c *Cluster) Promote() error {
	return c.run("pg_ctl", "promote", "--pgdata="+c.data(), "--wait")
}

func (c *Cluster) execute(statement string) error {
	return c.run("psql", "--no-psqlrc", "--quiet", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "latchkey", "-d", "postgres", "-c", statement)
}

// URLs returns the URL of those of some clusters that takes writes.
func URLs(clusters ...*Cluster) string {
	hosts := ""
	for i, c := range clusters {
		if i > 0 {
			hosts += ","
		}
		hosts += c.Addr()
	}
	return "postgres://latchkey@" + hosts + "/postgres?target_session_attrs=read-write"
}
