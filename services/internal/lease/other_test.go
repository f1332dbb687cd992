//go:build !linux

package lease

const frozenEnv = "LEASE_TEST_SUBSCRIBER"

func beSubscriber() int { return 1 }
