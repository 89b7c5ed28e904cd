// Package explore looks for a power cut that a program does not survive.
//
// It replays a recording of what the program did ([crash.Recording]), makes the states
// that a power cut can leave at each place of it by a model, and has each checked. Of
// those that fail it looks for the smallest loss that is enough, and says which sync
// would have prevented it.
package explore
