// There is no such room.
package attic
