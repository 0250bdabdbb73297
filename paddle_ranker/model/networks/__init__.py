"""Networks: BERT's and what it shares (attention, dropout, rotary positions, LoRA), and families that differ."""
