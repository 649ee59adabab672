------------------------------ MODULE TCommit ------------------------------
(* Transaction commit, as specified by Jim Gray and Leslie Lamport in       *)
(* "Consensus on Transaction Commit" (ACM Transactions on Database Systems  *)
(* 31(1), 2006; Microsoft Research MSR-TR-2003-96), appendix A.1. The       *)
(* formulas are theirs; the comments are not.                               *)
CONSTANT RM
VARIABLE rmState

TCTypeOK == rmState \in [RM -> {"working", "prepared", "committed", "aborted"}]

TCInit == rmState = [rm \in RM |-> "working"]

(* Commit is possible when all are prepared or committed already.           *)
canCommit == \A rm \in RM : rmState[rm] \in {"prepared", "committed"}

(* Abort is possible while nobody has committed.                            *)
notCommitted == \A rm \in RM : rmState[rm] # "committed"

Prepare(rm) == /\ rmState[rm] = "working"
               /\ rmState' = [rmState EXCEPT ![rm] = "prepared"]

Decide(rm) == \/ /\ rmState[rm] = "prepared"
                 /\ canCommit
                 /\ rmState' = [rmState EXCEPT ![rm] = "committed"]
              \/ /\ rmState[rm] \in {"working", "prepared"}
                 /\ notCommitted
                 /\ rmState' = [rmState EXCEPT ![rm] = "aborted"]

TCNext == \E rm \in RM : Prepare(rm) \/ Decide(rm)

TCSpec == TCInit /\ [][TCNext]_rmState

TCConsistent ==
  \A rm1, rm2 \in RM : ~ /\ rmState[rm1] = "aborted"
                         /\ rmState[rm2] = "committed"

THEOREM TCSpec => [](TCTypeOK /\ TCConsistent)
=============================================================================
