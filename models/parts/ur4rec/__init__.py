"""UR4Rec's retriever: texts, experts, router, proxies, memory, and its fusion with SASRec."""
