------------------------------ MODULE TwoPhase -----------------------------
(* Two-phase commit, as specified by Jim Gray and Leslie Lamport in         *)
(* "Consensus on Transaction Commit" (ACM Transactions on Database Systems  *)
(* 31(1), 2006; Microsoft Research MSR-TR-2003-96), appendix A.2. The       *)
(* formulas are theirs; the comments are not.                               *)
CONSTANT RM
VARIABLES rmState, tmState, tmPrepared, msgs

Message == [type : {"Prepared"}, rm : RM] \cup [type : {"Commit", "Abort"}]

TPTypeOK == /\ rmState \in [RM -> {"working", "prepared", "committed", "aborted"}]
            /\ tmState \in {"init", "committed", "aborted"}
            /\ tmPrepared \subseteq RM
            /\ msgs \subseteq Message

TPInit == /\ rmState = [rm \in RM |-> "working"]
          /\ tmState = "init"
          /\ tmPrepared = {}
          /\ msgs = {}

(* The transaction manager.                                                 *)
TMRcvPrepared(rm) == /\ tmState = "init"
                     /\ [type |-> "Prepared", rm |-> rm] \in msgs
                     /\ tmPrepared' = tmPrepared \cup {rm}
                     /\ UNCHANGED <<rmState, tmState, msgs>>

TMCommit == /\ tmState = "init"
            /\ tmPrepared = RM
            /\ tmState' = "committed"
            /\ msgs' = msgs \cup {[type |-> "Commit"]}
            /\ UNCHANGED <<rmState, tmPrepared>>

TMAbort == /\ tmState = "init"
           /\ tmState' = "aborted"
           /\ msgs' = msgs \cup {[type |-> "Abort"]}
           /\ UNCHANGED <<rmState, tmPrepared>>

(* A resource manager.                                                      *)
RMPrepare(rm) == /\ rmState[rm] = "working"
                 /\ rmState' = [rmState EXCEPT ![rm] = "prepared"]
                 /\ msgs' = msgs \cup {[type |-> "Prepared", rm |-> rm]}
                 /\ UNCHANGED <<tmState, tmPrepared>>

RMChooseToAbort(rm) == /\ rmState[rm] = "working"
                       /\ rmState' = [rmState EXCEPT ![rm] = "aborted"]
                       /\ UNCHANGED <<tmState, tmPrepared, msgs>>

RMRcvCommitMsg(rm) == /\ [type |-> "Commit"] \in msgs
                      /\ rmState' = [rmState EXCEPT ![rm] = "committed"]
                      /\ UNCHANGED <<tmState, tmPrepared, msgs>>

RMRcvAbortMsg(rm) == /\ [type |-> "Abort"] \in msgs
                     /\ rmState' = [rmState EXCEPT ![rm] = "aborted"]
                     /\ UNCHANGED <<tmState, tmPrepared, msgs>>

TPNext == \/ TMCommit \/ TMAbort
          \/ \E rm \in RM : \/ TMRcvPrepared(rm) \/ RMPrepare(rm)
                            \/ RMChooseToAbort(rm)
                            \/ RMRcvCommitMsg(rm) \/ RMRcvAbortMsg(rm)

TPSpec == TPInit /\ [][TPNext]_<<rmState, tmState, tmPrepared, msgs>>

TC == INSTANCE TCommit

(* The name by which a configuration can ask for it. *)
TCSpec == TC!TCSpec

THEOREM TPSpec => TC!TCSpec
=============================================================================
