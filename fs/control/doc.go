// Package control is the control tree, .mapfs in the root of every mount: files that
// tell what the engine does with each file, and ctl files that take commands. The man
// page mapfs-control(5) is its reference.
//
// A file of the tree is one row of the table in table.go, a command one row of that in
// command_table.go.
package control
