//go:build !linux

package main

// A build for any other system ends with this line.
var _ = mapfs_is_for_Linux_only
