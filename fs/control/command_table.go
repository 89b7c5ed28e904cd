package control

import (
	"slices"
)

// verbs returns the table.
func verbs() []verb {
	return []verb{
		{ofMount, "sync", nil, (*Tree).runSync},
		{ofMount, "mmap", []string{"name", "file", "offset", "length", "prot", "flags", "addr", "open"}, (*Tree).runMmap},
		{ofMount, "munmap", []string{"name", "addr", "length"}, (*Tree).runAtAddress},
		{ofMount, "mprotect", []string{"addr", "length", "prot"}, (*Tree).runAtAddress},
		{ofMount, "msync", []string{"addr", "length", "flags"}, (*Tree).runAtAddress},
		{ofMount, "madvise", []string{"addr", "length", "advice"}, (*Tree).runAtAddress},
		{ofMount, "mlock", []string{"addr", "length"}, (*Tree).runAtAddress},
		{ofMount, "munlock", []string{"addr", "length"}, (*Tree).runAtAddress},
		{ofMount, "fault", []string{"op", "path", "nth", "count", "probability", "seed", "errno", "short", "delay", "powercut", "then", "remove"}, (*Tree).runFault},

		{ofMount, "powercut", []string{"keep", "seed", "torn"}, (*Tree).runPowercut},

		{ofFile, "msync", []string{"offset", "length", "flags"}, (*Tree).runFileMsync},
		{ofFile, "mode", []string{""}, (*Tree).runMode},
		{ofFile, "madvise", []string{"advice", "offset", "length"}, (*Tree).runFileMadvise},
		{ofFile, "mlock", []string{"offset", "length"}, (*Tree).runFileMlock},
		{ofFile, "munlock", []string{"offset", "length"}, (*Tree).runFileMunlock},

		{ofMapping, "munmap", []string{"offset", "length"}, (*Tree).runInMapping},
		{ofMapping, "mprotect", []string{"offset", "length", "prot"}, (*Tree).runInMapping},
		{ofMapping, "msync", []string{"offset", "length", "flags"}, (*Tree).runInMapping},
		{ofMapping, "madvise", []string{"offset", "length", "advice"}, (*Tree).runInMapping},
		{ofMapping, "mlock", []string{"offset", "length"}, (*Tree).runInMapping},
		{ofMapping, "munlock", []string{"offset", "length"}, (*Tree).runInMapping},
	}
}

// Command is a command of a ctl file.
type Command struct {
	Dir, Name string   // as mapfs-control(5) has them: "/files/PATH", "msync"
	Keys      []string // the arguments it takes; "" is a word that stands alone
}

// Commands returns the table of commands.
func Commands() []Command {
	dirs := map[owner]dir{ofMount: rootDir, ofFile: fileDir, ofMapping: mappingDir}
	var commands []Command
	for _, v := range verbs() {
		commands = append(commands, Command{string(dirs[v.whose]), v.name, slices.Clone(v.keys)})
	}
	return commands
}
