"""Which cells answer for which object, and what their answers cost."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from . import config
from .dataset import IGNORE


def pairwise_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[n, k, 4] and [n, m, 4] → [n, k, m]."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    common = (high - low).clamp_(min=0).prod(-1)
    area = lambda boxes: (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return common / (area(a)[:, :, None] + area(b)[:, None, :] - common + 1e-6)


def generalised_iou_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1 − GIoU (Rezatofighi et al. 2019) of boxes [..., 4], pair by pair."""
    area = lambda boxes: (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area(a) + area(b) - common + 1e-6
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1) + 1e-6
    return 1 - common / union + (hull - union) / hull


@torch.no_grad()
def assign(logits, boxes, targets, centres, strides, how: config.Loss):
    """Task-aligned assignment (TOOD, Feng et al. 2021): each object takes the cells inside it whose score^alpha ×
    IoU^beta is best.

    `logits` [n, cells, classes], `boxes` [n, cells, 4], `targets` [n, objects, 5] (class IGNORE: neither object nor
    background; lower: padding). Gives for each cell: whether it is positive, the index of its object, the quality
    0..1 that its score should reach, and whether it is ignored.
    """
    outline, label = targets[..., :4], targets[..., 4]
    real = label >= 0
    middle, half = (outline[..., :2] + outline[..., 2:]) / 2, (outline[..., 2:] - outline[..., :2]) / 2
    offset = (centres[None, None] - middle[:, :, None]).abs()
    # Objects smaller than a cell still own the cells within 6 pixels of their middle.
    reach = half.clamp(min=6.0)[:, :, None]
    inside = (offset < reach).all(-1) & real[..., None]
    iou = pairwise_iou(outline, boxes)
    wanted = label.clamp(min=0).long()[..., None].expand(-1, -1, logits.shape[1])
    score = torch.gather(logits.sigmoid().transpose(1, 2), 1, wanted)
    # While boxes are still bad, prefer the middle of the object and strides of about size / 3.5.
    size = (half * 2).amax(-1)[..., None]
    level = torch.exp(-(torch.log2(size.clamp(min=1.0) / (strides[None, None] * 3.5)) ** 2))
    prior = 1e-4 * torch.exp(-((offset / (reach + 2)) ** 2).sum(-1)) * level
    aligned = (score.pow(how.alpha) * iou.pow(how.beta) + prior) * inside
    best, index = aligned.topk(min(how.candidates, aligned.shape[-1]), -1)
    chosen = torch.zeros_like(aligned).scatter_(-1, index, (best > 0).float()) * inside
    # A cell that several objects chose answers for the one it fits best.
    top, owner = (aligned * chosen).max(1)
    positive = top > 0
    chosen = F.one_hot(owner, aligned.shape[1]).transpose(1, 2) * chosen
    aligned = aligned * chosen
    reached = (iou * chosen).amax(-1, keepdim=True).clamp(min=0.1)
    quality = (aligned / (aligned.amax(-1, keepdim=True) + 1e-9) * reached).amax(1)
    ignored = ((offset < half[:, :, None]).all(-1) & (label == IGNORE)[..., None]).any(1) & ~positive
    return positive, owner, quality, ignored


def detection_loss(logits, boxes, targets, centres, strides, how: config.Loss):
    """(class loss, box loss, positive cells). Classes: varifocal (Zhang et al. 2021) binary cross-entropy; boxes:
    1 − GIoU weighted by quality; both divided by the sum of qualities."""
    positive, owner, quality, ignored = assign(logits.detach(), boxes.detach(), targets, centres, strides, how)
    picture, cell = positive.nonzero(as_tuple=True)
    matched, weight = targets[picture, owner[picture, cell]], quality[picture, cell]
    wanted = torch.zeros_like(logits)
    wanted[picture, cell, matched[:, 4].long()] = weight
    importance = torch.where(wanted > 0, wanted, 0.75 * logits.detach().sigmoid() ** 2) * (~ignored)[..., None]
    total = weight.sum().clamp(min=1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    class_loss = (entropy * importance).sum() / total
    box_loss = (generalised_iou_loss(boxes[picture, cell], matched[:, :4]) * weight).sum() / total
    return class_loss, box_loss, len(cell)


def distillation_loss(logits, boxes, teacher_logits, teacher_boxes):
    """What the student says differently from its teacher, cell by cell, as (class loss, box loss).

    Scores: quality-focal cross-entropy (generalised focal loss, Li et al. 2020: |difference|² × cross-entropy); boxes:
    1 − GIoU where the teacher sees an object.
    """
    belief = teacher_logits.sigmoid()
    gap = (belief - logits.detach().sigmoid()).abs() ** 2
    sure = belief.amax(-1)
    total = sure[sure > 0.05].sum().clamp(min=1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, belief, reduction="none")
    class_loss = (entropy * gap).sum() / total
    box_loss = (generalised_iou_loss(boxes, teacher_boxes) * torch.where(sure > 0.05, sure, 0.0)).sum() / total
    return class_loss, box_loss
