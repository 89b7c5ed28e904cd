//go:build linux

// Package memory has the verbs peek, poke, hold and ipc, which are clients: each maps files
// itself, of any filesystem, and knows nothing of mounts and control trees.
package memory

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
)

// Signals returns where the signals arrive that end a command, and a function that gives them
// back to the system.
type Signals func(foreground bool) (arrived <-chan os.Signal, giveBack func())

// Commands returns the verbs.
func Commands(signals Signals) []*cobra.Command {
	return []*cobra.Command{newPeekCommand(), newPokeCommand(), newHoldCommand(signals), newIPCCommand(signals), newIPCPeerCommand()}
}

// faultsHelp is for the help of every verb that maps a file.
const faultsHelp = `An access that fails ends the command as its signal would: a page wholly past the
end of the file is SIGBUS and status 135, one that the protection forbids is
SIGSEGV and status 139. A sentence says which page it was, and why.`

// mappingFlags are the arguments of mmap(2).
type mappingFlags struct {
	offset, length cli.ByteCount
	private        bool
	prot           protFlag
	open           openFlag
}

// registerProtection adds the flags that all clients have, and the protection
// that is the default.
func (f *mappingFlags) registerProtection(cmd *cobra.Command, prot client.Prot) {
	f.prot = protFlag(prot)
	flags := cmd.Flags()
	flags.BoolVar(&f.private, "private", false, "MAP_PRIVATE: stores copy pages and never reach the file")
	flags.Var(&f.prot, "prot", "protection: none, or letters of r, w and x")
	flags.Var(&f.open, "open", "open the file ro or rw (rw if a shared mapping has prot w)")
	completeFlag(cmd, "prot", "none", "r", "rw", "w", "x", "rx", "rwx")
	completeFlag(cmd, "open", "ro", "rw")
}

func (f *mappingFlags) registerRange(cmd *cobra.Command, offset, length string) {
	cmd.Flags().Var(&f.offset, "offset", offset)
	cmd.Flags().Var(&f.length, "length", length)
	completeFlag(cmd, "offset")
	completeFlag(cmd, "length")
}

// completeFlag offers these words for a flag's value, and no files.
func completeFlag(cmd *cobra.Command, flag string, words ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // only for a flag that is not there, or has one already
	}
}

// options are the arguments of mmap(2) as the user gave them.
func (f *mappingFlags) options() client.Options {
	opts := client.Options{
		Offset: f.offset.N, Length: client.ToEnd, Private: f.private, Prot: client.Prot(f.prot),
		Writable: !f.private && f.prot&unix.PROT_WRITE != 0,
	}
	if f.length.Given {
		opts.Length = f.length.N
	}
	if f.open != "" {
		opts.Writable = f.open == "rw"
	}
	return opts
}

// protFlag is a flag with a protection.
type protFlag client.Prot

func (p *protFlag) Type() string   { return "PROT" }
func (p *protFlag) String() string { return client.Prot(*p).String() }

func (p *protFlag) Set(text string) error {
	prot, err := client.ParseProt(text)
	*p = protFlag(prot)
	return err
}

// openFlag is how a file is opened: ro, rw, or as its mapping needs it.
type openFlag string

func (o *openFlag) Type() string   { return "MODE" }
func (o *openFlag) String() string { return string(*o) }

func (o *openFlag) Set(text string) error {
	if text != "ro" && text != "rw" {
		return fmt.Errorf("choose ro or rw")
	}
	*o = openFlag(text)
	return nil
}
