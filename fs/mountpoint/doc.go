// Package mountpoint knows where mapfs is mounted: it checks that a mount is possible,
// reads the mount table, unmounts, and finds who holds a mount and which process serves
// it. It knows no session, and looks at a mount only where that cannot hang.
package mountpoint
