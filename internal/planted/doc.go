// Package planted switches known bugs on, so that the tests can show that they
// would catch them. A bug is an if over On at the line that keeps a rule.
//
// Without the build tag "planted" On is constantly false and the compiler leaves
// nothing of it. With the tag, which is for tests only, one bug at a time is
// chosen by its name, by Choose; a name that is not in the list panics.
package planted
